"""One picture of CT and MR: bone of the one, soft tissue of the other."""
