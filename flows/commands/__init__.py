"""What commands look at and say."""
