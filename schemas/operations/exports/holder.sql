-- How far the export to :target has come, and the process that does it now (JSON), if one ever did.
select message_id, life_id, holder from trace_exports where target = :target;
