"""What training reads: micrographs, their truth, crops and damage."""
