"""TwinVoice: which of four replies is this person's."""
