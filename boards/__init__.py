"""Boards that the accelerator runs on: from its gateware to what a card is loaded with."""
