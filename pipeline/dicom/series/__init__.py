"""From files to series that are whole: sorted, split, merged, checked, chosen."""
