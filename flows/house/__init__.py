"""The house: `recognition up`, its parts, where they answer, and how they end."""
