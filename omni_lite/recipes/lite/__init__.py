"""The lite recipe: from texts and voices to a small model that hears and talks, on two CPU cores."""
