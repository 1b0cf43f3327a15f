"""HUMANUAL: what one person writes next, compared with what the person wrote. Six sources, one task.

rows.py    OdysSim's rows and the authors' raw records
judges.py  what the judges and the critic are asked
scorers.py what needs no judge: usable replies, copying, length; and how verdicts become scores
task.py    the pure environment, and what the registry lists
"""

from envs.tasks.humanual.task import book_spec, chat_spec, email_spec, news_spec, opinion_spec, politics_spec

__all__ = ["book_spec", "chat_spec", "email_spec", "news_spec", "opinion_spec", "politics_spec"]
