-- One message as it stands, or no row; nothing is changed.
select record from message_records where id = :id;
