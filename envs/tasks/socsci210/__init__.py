"""SocSci210: how one respondent of a social-science experiment answered.

rows.py      OdysSim's rows
scorers.py   answers under each profile
aggregate.py how the answers of a whole study are spread, model against people
task.py      the pure environment, and what the registry lists
"""

from envs.tasks.socsci210.task import spec

__all__ = ["spec"]
