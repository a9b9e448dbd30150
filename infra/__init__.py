"""The hands: clients of the outside parts, metrics, and what deploys. No decision about art or music."""
