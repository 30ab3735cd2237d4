-- One message as it stands; nothing is changed.
insert into refusals
select 'unknown_message' where not exists (select 1 from agent_messages where id = :id);

select record from message_records where id = :id;
