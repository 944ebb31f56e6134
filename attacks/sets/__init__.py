"""Sets of adversarial examples on disk, crafted as resumable jobs."""
