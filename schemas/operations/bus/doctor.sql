-- What can be told of the bus from inside: one JSON object. quick_check reads the whole file.
select json_object(
  'check', (select group_concat(quick_check, '; ') from (select quick_check from pragma_quick_check limit 3)),
  'foreign', (select group_concat(name, ', ') from sqlite_schema
    where type in ('trigger', 'view') and name not like 'agent\_%' escape '\' and name not like 'coordination\_%' escape '\'
      and name not glob 'payload[_ ]*' and name not like '%\_records' escape '\' and name not in ('refusals', 'refusals_raise', 'priority_timeline', 'active_agents')),
  'leased', (select count(*) from agent_messages where due_at is not null and status = 'leased'),
  'overdue', (select count(*) from agent_messages where due_at is not null and status = 'leased' and due_at <= :now),
  'dead', (select count(*) from agent_messages
    where status = 'dead' and dead_reason <> 'cancelled' and dead_reason <> 'expired'));
