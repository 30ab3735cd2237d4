-- The checkpoint an agent goes on from: the one named, or (null) its latest; no row when it has none.
insert into refusals
select 'unknown_checkpoint' where :checkpoint is not null
  and not exists (select 1 from agent_checkpoints where checkpoint_id = :checkpoint and agent_id = :agent);

select record from checkpoint_records
where agent_id = :agent and (:checkpoint is null or checkpoint_id = :checkpoint)
order by created_at desc, rowid desc limit 1;
