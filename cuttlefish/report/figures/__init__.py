"""Figures 1 to 6, drawn from records and benches. `gallery.FIGURES` lists them; each module draws one."""
