-- Differs: claimers here work at the same time, and a claim is one call: `message_claim` in schemas/postgres/0001_core.sql.
-- unless :any_type
insert into refusals
select 'unknown_type' where not exists (select 1 from message_types where name = :type);

select rank, id, record from message_claim(:agent, :type, :limit, :lease, :now, :seen);
