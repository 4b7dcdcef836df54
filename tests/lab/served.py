"""`make lab`: the lab's hosts with the server on them, left running in the background."""
