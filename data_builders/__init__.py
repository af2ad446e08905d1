"""Raw face datasets in, instruction corpus out (faces table + samples table)."""
