"""What things cost: operators against their references and peers, measured in turns, and how cost grows with size."""
