-- Differs: there is no file to read; PostgreSQL looks after its own.
select 'ok';
