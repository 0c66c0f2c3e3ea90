"""Classification of the images in {train,val}/<class>/ folders, decoded while training."""
