-- An object of each kind that pg_dump and the drift's catalog know.
create extension citext;
create schema app;
comment on schema app is 'the app';
create type app.mood as enum ('sad', 'it''s', 'happy');
create domain app.positive as numeric(10,2) default 1 not null check (value > 0) constraint other check (value < 1000);
create type app.pair as (a int, b text collate "C");
create type app.floats as range (subtype = float8, subtype_diff = float8mi);
create table app.parent (
    id bigint generated always as identity (start with 5) primary key,
    n int not null default 3 constraint pos check (n > 0),
    doubled int generated always as (n * 2) stored,
    m app.mood, c citext, s text
) with (fillfactor = 70);
alter table app.parent alter s set storage external, alter n set statistics 7, alter n set (n_distinct = 5);
create table app.child (extra text) inherits (app.parent);
create table app.part (id int, at date, primary key (id, at)) partition by range (at);
create table app.part_1 partition of app.part for values from ('2026-01-01') to ('2027-01-01');
create index on app.part (at);
create table app.ser (
    id serial primary key,
    p bigint references app.parent (id) on delete cascade deferrable,
    x text unique,
    "Camel ""Case" text,
    b box,
    exclude using gist (b with &&)
);
create unlogged table app.u (a int, b int);
create statistics app.st (dependencies) on a, b from app.u;
create unique index u_expr on app.u (lower(a::text), b desc) where b > 0;
create view app.v with (security_barrier) as select id, n from app.parent where n > 1;
comment on column app.v.n is 'en';
create materialized view app.mv as select count(*) as c from app.v;
create unique index on app.mv (c);
create function app.f(a int, b text default 'x') returns int language sql immutable as $$ select a $$;
create function app.tg() returns trigger language plpgsql as $f$ begin
    -- Name: no; Type: ENTRY; Schema: of pg_dump; Owner: -
    return new;
end $f$;
create procedure app.pr(inout a int) language plpgsql as $$ begin a := 1; end $$;
create aggregate app.mysum(int) (sfunc = int4pl, stype = int, initcond = '0');
create trigger t before insert on app.parent for each row when (new.n > 0) execute function app.tg();
create trigger pt after insert on app.part for each row execute function app.tg();
alter table app.parent disable trigger t;
create rule r as on insert to app.u do also notify x;
alter table app.ser enable row level security, force row level security;
create policy pol on app.ser as restrictive for update to public using (true) with check (id > 0);
create function app.ev() returns event_trigger language plpgsql as $$ begin end $$;
create event trigger et on ddl_command_start when tag in ('CREATE STATISTICS') execute function app.ev();
create publication pub for table app.ser;
create foreign data wrapper w;
create server sv foreign data wrapper w options (host 'h');
create user mapping for public server sv options (password 'sesame');
create foreign table app.ft (a int options (x 'y')) server sv options (t 'z');
create operator app.=== (function = int4eq, leftarg = int, rightarg = int, commutator = operator(app.===));
create cast (app.pair as text) with inout;
create collation app.co (locale = 'C');
create text search configuration app.ts (copy = pg_catalog.english);
create text search dictionary app.td (template = simple, stopwords = english);
create operator class app.oc for type int using btree as operator 1 <, operator 3 =, function 1 btint4cmp(int, int);
create conversion app.cv for 'LATIN1' to 'UTF8' from iso8859_1_to_utf8;
alter default privileges in schema app grant select on tables to public;
grant select, insert (n) on app.parent to public;
revoke execute on function app.f(int, text) from public;
comment on table app.parent is 'it''s';
comment on column app.parent.n is 'en';
comment on index app.u_expr is 'i';
comment on constraint pos on app.parent is 'c';
comment on function app.f(int, text) is 'fun';
create sequence app.sq as smallint increment 2 cycle owned by app.u.a;
create access method heap2 type table handler heap_tableam_handler;
