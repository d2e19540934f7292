"""Golden disks: from the layers of an image to something that a machine can boot."""
