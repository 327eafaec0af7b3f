"""What needs no knowledge of videos: noise, recomputation, processes, files."""
