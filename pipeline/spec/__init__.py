"""What a person wrote: the data spec, read and checked."""
