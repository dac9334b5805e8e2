--
-- PostgreSQL database dump
--


-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: applied_batches; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.applied_batches (
    batch_id character varying(64) NOT NULL,
    digest bytea NOT NULL,
    minute timestamp without time zone NOT NULL,
    applied_at timestamp without time zone DEFAULT (now() AT TIME ZONE 'UTC'::text) NOT NULL
);


--
-- Name: job_history; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.job_history (
    job_id bigint NOT NULL,
    server_nonce character varying(128) NOT NULL,
    created_at double precision NOT NULL
);


--
-- Name: job_ids; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.job_ids (
    only_row integer NOT NULL,
    reserved_until bigint NOT NULL,
    CONSTRAINT job_ids_only_row_check CHECK ((only_row = 1))
);


--
-- Name: rejection_flushes; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.rejection_flushes (
    process character varying(64) NOT NULL,
    serial bigint NOT NULL,
    flushed_at timestamp without time zone NOT NULL
);


--
-- Name: rejections; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.rejections (
    username character varying(255) NOT NULL,
    code integer NOT NULL,
    "timestamp" timestamp without time zone NOT NULL,
    rejection_count bigint NOT NULL
)
WITH (fillfactor='80');


--
-- Name: rollups; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.rollups (
    grain character varying(8) NOT NULL,
    before timestamp without time zone NOT NULL
);


--
-- Name: schema_version; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.schema_version (
    version integer NOT NULL,
    applied_at timestamp without time zone DEFAULT (now() AT TIME ZONE 'UTC'::text) NOT NULL
);


--
-- Name: submissions; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.submissions (
    username character varying(255) NOT NULL,
    "timestamp" timestamp without time zone NOT NULL,
    submission_count integer NOT NULL
)
WITH (fillfactor='80');


--
-- Name: submissions_day; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.submissions_day (
    username character varying(255) NOT NULL,
    "timestamp" timestamp without time zone NOT NULL,
    submission_count bigint NOT NULL
);


--
-- Name: submissions_hour; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.submissions_hour (
    username character varying(255) NOT NULL,
    "timestamp" timestamp without time zone NOT NULL,
    submission_count bigint NOT NULL
);


--
-- Name: worker_submissions; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.worker_submissions (
    username character varying(255) NOT NULL,
    worker character varying(255) NOT NULL,
    "timestamp" timestamp without time zone NOT NULL,
    submission_count integer NOT NULL
)
WITH (fillfactor='80');


--
-- Name: worker_submissions_day; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.worker_submissions_day (
    username character varying(255) NOT NULL,
    worker character varying(255) NOT NULL,
    "timestamp" timestamp without time zone NOT NULL,
    submission_count bigint NOT NULL
);


--
-- Name: worker_submissions_hour; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.worker_submissions_hour (
    username character varying(255) NOT NULL,
    worker character varying(255) NOT NULL,
    "timestamp" timestamp without time zone NOT NULL,
    submission_count bigint NOT NULL
);


--
-- Data for Name: applied_batches; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-1', '\x712b47bf1218c2e5b09cdcca208b67ad86e0051af992a87d2c1eedfacaec3b88', '2026-11-29 12:17:00', '2026-11-29 12:17:39.481461');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-2', '\x53e8536c956e5f46313ad7c5e1bf30ca32e433b4d8d2e47a3014ff53421379c5', '2026-11-29 12:17:00', '2026-11-29 12:17:39.481461');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-3', '\xea3861c4e761899c59e3e3c2ada0d214cea60866ce469e30e283f61f624128c5', '2026-11-29 12:17:00', '2026-11-29 12:17:39.481461');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-4', '\xbbefd695f87679e6f8700a91b4018d71725435e076e3f36cd835f27ce891e622', '2026-11-29 12:17:00', '2026-11-29 12:17:39.481461');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-5', '\x890f64cae6d8eeb86499529cf5521d2e4a047b27057b6e74a203815d0ea57664', '2026-11-29 12:17:00', '2026-11-29 12:17:39.481461');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-6', '\xb650e28347251979e622231d5baf394891e6527f71c179575dc72bd595218747', '2026-11-29 12:17:00', '2026-11-29 12:17:39.481461');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-7', '\x0deb9bd53f4119ab7c215c244646b45253f2304b0ae087b741550ae5a884dd50', '2026-11-29 12:17:00', '2026-11-29 12:17:39.481461');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-8', '\xb8acb95b39a425a488052fc8d62d9997aec137089f1a8250fa92d2c2b1a94b53', '2026-11-29 12:17:00', '2026-11-29 12:17:39.481461');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-9', '\xdca4a36e033c1eea244b91ea5f2570d410d4fbbca25dafa47b7aef8e78e393d8', '2026-11-29 12:17:00', '2026-11-29 12:17:39.481461');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-10', '\x96952a28e29af1f4824eca6f919ec0aa3a2cecd6a945860d6441803995ea0f14', '2026-11-29 12:17:00', '2026-11-29 12:17:40.481063');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-11', '\x1d41e31187d5f80ca2058c98055a2a8d35ddd410dba2e4d194b360bd2409bafd', '2026-11-29 12:17:00', '2026-11-29 12:17:40.481063');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-12', '\xe21333c1d96674d9ad63d588fd9c6c1732daa1addf86afff261cbee4c0f138ba', '2026-11-29 12:17:00', '2026-11-29 12:17:40.481063');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-13', '\x57723635e9d83b56f9317327e660ca7ee3735c391e5564cd7384e94aace4d925', '2026-11-29 12:17:00', '2026-11-29 12:17:40.481063');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-14', '\xfd4bb89dabd799f4f7e983c861acb2214c3951da857f747855ed5c9a135ed0de', '2026-11-29 12:17:00', '2026-11-29 12:17:40.481063');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-15', '\x48ed4ccbd27c7fe338c0a1c07c223a51f538f9749224cc74eaf8f4549a038f7e', '2026-11-29 12:17:00', '2026-11-29 12:17:40.481063');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-16', '\x24017c1372bebb4668b161ba4859d3d4209060898f60909aaf95e9433040fc5f', '2026-11-29 12:17:00', '2026-11-29 12:17:40.481063');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-17', '\x6ca80c8d477858e476d4cb909143e256e904e781283da8f0d975a7ed84006fdd', '2026-11-29 12:17:00', '2026-11-29 12:17:40.481063');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-18', '\x89bec72b3f63f6de31b26ea03d235c2125bd984b578dd0c60b615720a8ec04ad', '2026-11-29 12:17:00', '2026-11-29 12:17:40.481063');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-19', '\x18b8f76585028507efcfaa035f89b614ce925eb369a6122976ddad6f5b06ae85', '2026-11-29 12:17:00', '2026-11-29 12:17:41.491119');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-20', '\x131a8775b6f53542daf3c0efa64ec85733a246a42cecc9032c4b5ad52b6b0b24', '2026-11-29 12:17:00', '2026-11-29 12:17:41.491119');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-21', '\xaf5e035bd497da580e1e65dac12ea18125c69b716626ab2c022ba50742bf80e2', '2026-11-29 12:17:00', '2026-11-29 12:17:41.491119');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-22', '\x3d79c2594d2709ec4c1cb4464965a0c1dffae77da021434706e5703d517fea90', '2026-11-29 12:17:00', '2026-11-29 12:17:41.491119');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-23', '\x743a9fde690f56572aa5310abf8717dbc26d1880e98a62f587093ad06f2bb40c', '2026-11-29 12:17:00', '2026-11-29 12:17:41.491119');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-24', '\x13c3734b4d308d0abfcd4e6a89bd102e73a778dd8ae66dfcbc48d4ad1f279a8a', '2026-11-29 12:17:00', '2026-11-29 12:17:41.491119');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-25', '\xa9f51079ad9d911cb118548024886bbe384e27d106812710964d03338bbfd283', '2026-11-29 12:17:00', '2026-11-29 12:17:41.491119');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-26', '\x7cd6d47592a516c9bef0b9ce722da82e463c6373adc1a4bd18a9e2a871d886a4', '2026-11-29 12:17:00', '2026-11-29 12:17:41.491119');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-27', '\xe2429f35940e4b7ce29bfb52ca8fd66e069b8ab8ff0b17fbc331d05d395b774e', '2026-11-29 12:17:00', '2026-11-29 12:17:41.491119');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-28', '\x2c92f2a1583ecaae3718a3505062f7ff0d311a34833dce84cd02ddf30dbce1d2', '2026-11-29 12:17:00', '2026-11-29 12:17:43.480828');
INSERT INTO public.applied_batches VALUES ('6b0c17e1-3dd04229a7fe-29', '\xb883847a965d5f2c537e76312c60f9293e05cbad8c5a3be2bcb3b8ae3b63c701', '2026-11-29 12:17:00', '2026-11-29 12:17:43.480828');


--
-- Data for Name: job_history; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.job_history VALUES (1, '7b8a99dcb28243fc4de61f7f8725a230', 1795954658.479409);
INSERT INTO public.job_history VALUES (2, '38033fafcf86d821c7b6fc4c3811885b', 1795954659.483114);
INSERT INTO public.job_history VALUES (3, '1f7435abd8c987896f80a439724af323', 1795954660.4834292);
INSERT INTO public.job_history VALUES (4, '38ef2e2cf6beadec9a8999fb67c7d79b', 1795954661.490855);
INSERT INTO public.job_history VALUES (5, '7c402570a9937b6954d1a12317dac4dc', 1795954662.4833775);


--
-- Data for Name: job_ids; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.job_ids VALUES (1, 5);


--
-- Data for Name: rejection_flushes; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.rejection_flushes VALUES ('9af03d1fb155b90c7b7cc8beeeaf3cdf', 1, '2026-11-29 12:17:40.481063');


--
-- Data for Name: rejections; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.rejections VALUES ('alice', 23, '2026-11-29 12:17:00', 2);
INSERT INTO public.rejections VALUES ('bob', 23, '2026-11-29 12:17:00', 1);


--
-- Data for Name: rollups; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Data for Name: schema_version; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.schema_version VALUES (1, '2026-11-29 12:17:38.377219');


--
-- Data for Name: submissions; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.submissions VALUES ('alice', '2026-11-29 12:17:00', 18);
INSERT INTO public.submissions VALUES ('bob', '2026-11-29 12:17:00', 9);
INSERT INTO public.submissions VALUES ('carol', '2026-11-29 12:17:00', 2);


--
-- Data for Name: submissions_day; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Data for Name: submissions_hour; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Data for Name: worker_submissions; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.worker_submissions VALUES ('alice', 'rig1', '2026-11-29 12:17:00', 9);
INSERT INTO public.worker_submissions VALUES ('alice', 'rig2', '2026-11-29 12:17:00', 9);


--
-- Data for Name: worker_submissions_day; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Data for Name: worker_submissions_hour; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Name: applied_batches applied_batches_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.applied_batches
    ADD CONSTRAINT applied_batches_pkey PRIMARY KEY (batch_id);


--
-- Name: job_history job_history_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.job_history
    ADD CONSTRAINT job_history_pkey PRIMARY KEY (job_id);


--
-- Name: job_ids job_ids_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.job_ids
    ADD CONSTRAINT job_ids_pkey PRIMARY KEY (only_row);


--
-- Name: rejection_flushes rejection_flushes_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rejection_flushes
    ADD CONSTRAINT rejection_flushes_pkey PRIMARY KEY (process);


--
-- Name: rejections rejections_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rejections
    ADD CONSTRAINT rejections_pkey PRIMARY KEY (username, code, "timestamp");


--
-- Name: rollups rollups_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.rollups
    ADD CONSTRAINT rollups_pkey PRIMARY KEY (grain);


--
-- Name: schema_version schema_version_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.schema_version
    ADD CONSTRAINT schema_version_pkey PRIMARY KEY (version);


--
-- Name: submissions_day submissions_day_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.submissions_day
    ADD CONSTRAINT submissions_day_pkey PRIMARY KEY (username, "timestamp");


--
-- Name: submissions_hour submissions_hour_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.submissions_hour
    ADD CONSTRAINT submissions_hour_pkey PRIMARY KEY (username, "timestamp");


--
-- Name: submissions submissions_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.submissions
    ADD CONSTRAINT submissions_pkey PRIMARY KEY (username, "timestamp");


--
-- Name: worker_submissions_day worker_submissions_day_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.worker_submissions_day
    ADD CONSTRAINT worker_submissions_day_pkey PRIMARY KEY (username, worker, "timestamp");


--
-- Name: worker_submissions_hour worker_submissions_hour_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.worker_submissions_hour
    ADD CONSTRAINT worker_submissions_hour_pkey PRIMARY KEY (username, worker, "timestamp");


--
-- Name: worker_submissions worker_submissions_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.worker_submissions
    ADD CONSTRAINT worker_submissions_pkey PRIMARY KEY (username, worker, "timestamp");


--
-- Name: applied_batches_by_minute; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX applied_batches_by_minute ON public.applied_batches USING btree (minute);


--
-- Name: rejections_by_time; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX rejections_by_time ON public.rejections USING btree ("timestamp");


--
-- Name: submissions_by_time; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX submissions_by_time ON public.submissions USING btree ("timestamp");


--
-- Name: submissions_day_by_time; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX submissions_day_by_time ON public.submissions_day USING btree ("timestamp");


--
-- Name: submissions_hour_by_time; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX submissions_hour_by_time ON public.submissions_hour USING btree ("timestamp");


--
-- Name: worker_submissions_by_time; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX worker_submissions_by_time ON public.worker_submissions USING btree ("timestamp");


--
-- Name: worker_submissions_hour_by_time; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX worker_submissions_hour_by_time ON public.worker_submissions_hour USING btree ("timestamp");


--
-- PostgreSQL database dump complete
--


