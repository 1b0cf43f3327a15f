"""SocSci210: how one respondent of a social-science experiment answered.

rows.py    OdysSim's rows
scorers.py answers under each profile
task.py    the pure environment, and what the registry lists
"""

from envs.tasks.socsci210.task import spec

__all__ = ["spec"]
