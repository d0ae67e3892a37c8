"""Long work: jobs, who runs them, how long they take."""
