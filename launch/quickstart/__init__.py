"""`osim quickstart`: the whole pipeline on this machine, each stage through the functions of the real commands.

config.py    the recipe: sections are the configurations of the real commands
pipeline.py  stages done once, with markers: the resume logic
stages.py    what each stage does
summary.py   the final table and report.html
"""
