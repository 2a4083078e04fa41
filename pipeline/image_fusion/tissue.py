"""Where CT and MR show bone and soft tissue: what is measured there, and what a network learns there, is the same."""

#: On the scale from 0 to 255: CT from here on is bone, without its outermost voxels, which other tissue shares.
BONE, BONE_RIM = 230.0, 1
#: Where CT lies between these, and MR above its own, is soft tissue, without the outermost voxels.
SOFT_CT, SOFT_MR, SOFT_RIM = (30.0, 160.0), 20.0, 2
