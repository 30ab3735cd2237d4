-- Differs: it looks into PostgreSQL's catalog instead of SQLite's, and there is no file to check.
select json_object(
  'foreign', (select string_agg(tgname, ', ') from pg_trigger t join pg_class c on c.oid = t.tgrelid
    where c.relnamespace = current_schema()::regnamespace and not t.tgisinternal
      and t.tgname !~ '^(agent_|coordination_|payload[_ ]|refusals_raise)'),
  'leased', (select count(*) from agent_messages where due_at is not null and status = 'leased'),
  'overdue', (select count(*) from agent_messages where due_at is not null and status = 'leased' and due_at <= :now),
  'dead', (select count(*) from agent_messages
    where status = 'dead' and dead_reason <> 'cancelled' and dead_reason <> 'expired'));
