"""One module per verb or verb group; each has a typer `app`. Heavy imports are inside the commands."""
