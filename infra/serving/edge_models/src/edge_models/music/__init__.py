"""Music for a picture: from what was measured and felt in it to notes, and from notes to sound."""
