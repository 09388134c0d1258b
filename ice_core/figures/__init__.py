"""Pictures of a result: masks, rows, the contact sheet, plots."""
