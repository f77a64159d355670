"""Teaching tools: checks of exercises, plots, and the widgets of the live demo."""
