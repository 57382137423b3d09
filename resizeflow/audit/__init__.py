"""What happened, from the event log: facts for pages, stories and searches. It only reads."""
