"""What a stage can learn, one file each; the file's name is what a recipe says in ``objective``."""
