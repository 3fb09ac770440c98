"""Many images through one capability: unattended, resumable, in bounded memory."""
