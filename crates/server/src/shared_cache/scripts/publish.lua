-- Sends a message, or a heartbeat, to everyone who listens to the partition.
-- KEYS: sequence, channel
-- ARGV: message

publish(KEYS[1], KEYS[2], ARGV[1])
return { 'taken', foreign, 0 }
