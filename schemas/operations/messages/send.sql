-- Store one message for one mailbox, or for the queue of a type; returns its id and address.
--
-- The session is the sender's; a sender that is not registered has none, and the table refuses the row for it
-- (unknown_agent). With an idempotency key the first message sent under it answers for every later one, provided that
-- they say the same: type and payload are compared as JSON, so that spaces and the order of keys don't matter.
insert into refusals
select 'key_reused' from agent_messages m
where :key is not null and m.idempotency_key = :key and m.from_agent = :from and m.to_agent = :to
  and (m.message_type <> :type
    or exists (select fullkey, iif(type = 'integer', 'real', type), atom from json_tree(m.payload)
               except select fullkey, iif(type = 'integer', 'real', type), atom from json_tree(:payload))
    or exists (select fullkey, iif(type = 'integer', 'real', type), atom from json_tree(:payload)
               except select fullkey, iif(type = 'integer', 'real', type), atom from json_tree(m.payload)));

insert into agent_messages (session_id, from_agent, to_agent, message_type, priority, status, created_at, due_at,
  expires_at, idempotency_key, correlation_id, reply_to, payload)
values ((select session_id from agent_registry where agent_id = :from), :from, :to, :type, :priority,
  iif(:delay > 0, 'scheduled', 'ready'), :now,
  iif(:delay > 0, strftime('%Y-%m-%d %H:%M:%f', :now, '+' || :delay || ' seconds'), null),
  strftime('%Y-%m-%d %H:%M:%f', :now, '+' || :expires || ' seconds'), :key, :correlation, :reply_to, :payload)
on conflict (from_agent, to_agent, idempotency_key) where idempotency_key is not null
do update set idempotency_key = excluded.idempotency_key
returning id, to_agent;

update agent_registry set last_heartbeat = :now
where agent_id = :from and last_heartbeat < strftime('%Y-%m-%d %H:%M:%f', :now, '-5 seconds');
