"""FANToM: who knows what after joining and leaving a conversation."""
