-- The payload schema of a message type.
select schema from message_types where name = :name;
