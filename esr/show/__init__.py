"""What people look at: exports, tables, samples of replies, figures."""
