//! Goal: what is on the screen at several sizes, cell by cell.
