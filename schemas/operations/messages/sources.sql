-- Where the next message of an agent comes from, for messages/take.sql; no row for an unknown agent.
--
-- `heads`: the best ready message of its mailbox and of its type's queue, each as one number that sorts as they are
-- taken: (10 - priority) * 10^16 + id. `due`: the first timers of the two, to be compared with `now`: when one is over,
-- or a clock was set back (`back`), or messages age, messages/receive.sql must sort things out first.
select :now as now,
  (select min(due_at) from agent_messages where due_at is not null and mailbox = :agent) as own_due,
  (select min(due_at) from agent_messages
   where due_at is not null and mailbox = '@' || a.agent_type || '/' || a.session_id) as queue_due,
  (select (10 - priority) * 10000000000000000 + id from agent_messages
   where mailbox = :agent and status = 'ready' order by priority desc, id limit 1) as own_head,
  (select (10 - priority) * 10000000000000000 + id from agent_messages
   where mailbox = '@' || a.agent_type || '/' || a.session_id and status = 'ready'
   order by priority desc, id limit 1) as queue_head,
  (select last_activity > strftime('%Y-%m-%d %H:%M:%f', :now, '+5 seconds')
   from coordination_sessions where session_id = a.session_id) as back,
  (select cast(value as real) > 0 from agent_coordination_config where key = 'priority_aging_seconds') as aging
from agent_registry a where a.agent_id = :agent;
