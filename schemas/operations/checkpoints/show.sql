-- One checkpoint.
insert into refusals
select 'unknown_checkpoint' where not exists (select 1 from agent_checkpoints where checkpoint_id = :checkpoint);

select record from checkpoint_records where checkpoint_id = :checkpoint;
