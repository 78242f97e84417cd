"""The README of the demo study: how it was made, with the numbers of the model."""

from __future__ import annotations

from boldly.simulation import anatomy, networks, states
from boldly.simulation.study import BRIEF_S, DATASETS, EVENT_RELATED, TRIAL_DURATIONS_S, Size

_TEXT = """\
# A demo study for boldly

**No brain data.** Everything here was drawn by `boldly simulate` (version {version}, size {size}, seed {seed}).
It is laid out as BIDS and fMRIPrep derivatives, so that the workflow can be tried without data at hand, and so
made that what a decoder finds can be checked against what was put in. It says nothing about brains: do not
publish it as fMRI.

| dataset | what | subjects | t_r (s) | states |
|---|---|---|---|---|
{datasets}

Upstream are `demo01`, `demo02`, `demo03` (no labels); downstream are `demohcp` and `demomdtb`.

## How the signals were made

1. **Networks.** {n_networks} networks oscillate at {slowest}-{fastest} Hz; each oscillation reaches the
   networks one after another, with lags up to {lag:g} s. All datasets share frequencies, strengths and lags.
2. **States.** While a state lasts, it drives the networks through the canonical haemodynamic response: with a
   pattern (some networks up, others down) and with a wave that passes through all networks once. {n_pairs}
   pairs of states have the same pattern and the opposite order of the wave; over the window of a trial the wave
   averages to zero. Such states differ in the order and lag of the networks and not in the mean signal. In each
   trial pattern and wave are stronger or weaker, and the wave starts earlier or later. Cues and instructions
   have a response of their own.
3. **Subjects.** {n_parcels} parcels show the networks. Where (standard deviation {topography:g} of a loading,
   next to 1 for the parcel's own network) and how strongly ({gain:.0%}) differs from subject to subject; so
   does the lag of the response ({response_lag:g} s).
4. **Noise.** Each parcel has noise of its own: white (standard deviation {white:g} at a repetition time of 1 s,
   more at shorter ones) and slow ({slow:g}), where a network's background has {background:g} and a state's pattern
   {pattern:g}.
5. **Image.** Parcels are overlapping blobs of {voxel:g} mm voxels in an ellipsoid on the grid of
   MNI152NLin2009cAsym. Added are head motion, loss of signal at jerks, respiration, signals of ventricles and
   white matter, drifts and white noise in each voxel. The confounds tables are computed from the stored images
   and explain all of these but the last.

## Labelled states

| dataset | state | process | same pattern as |
|---|---|---|---|
{labels}

Trials last {durations} s, whatever the state. With a haemodynamic delay of **{delay:g} s** (frames with onset +
delay <= t < onset + duration + delay) the window holds the response. `cue` (demohcp) and `instruct` (demomdtb)
are no states. In demohcp, `0bk_` and `2bk_` before a category are the load: the state is the category. In
demomdtb, consecutive rows of one `taskName` are one block, and a trailing `2` (session 2) means the same task.

Upstream the same states occur, unlabelled: in `demo01` with long breaks, in `demo02` with short ones, in `demo03`
without any and in an order that all subjects share.

## What should be excluded

`demo01` sub-03 run-2 has 8 volumes. In `demo02` sub-03 ses-2 the head moves by more than 0.5 mm from frame to
frame on average, in all others by about 0.1 mm.

## The best accuracy possible

`ceilings.tsv` has, for each downstream dataset, the accuracy of two ideal observers, found by drawing trials:
`any` sees the whole window of a trial, `mean_signal` only its average over time. Both know the model exactly:
what each state does, the covariance of background and noise, and each subject's topography, gain and lag. They
see parcels without artefacts, voxel noise and the responses to neighbouring trials, in as many frames as the
window has. Real decoders know and see less, so these are upper bounds: expect decoders to stay below. (One
thing the observers do not use: standardising a whole run tells a little about its other trials, which in
demohcp are of the same task; its two states have opposite patterns, so that little comes of it.) A decoder
above `mean_signal` has learned in which order networks respond. `chance` is one over the number of states; the
interval is 95 % (Wilson).

## Files

`truth.tsv` says how the parcels of the average subject respond to each state in the window of a trial: `mean`,
where the wave is zero, and `strength`, the root of the mean square with the wave. Explanations of decoders are
compared with it. `atlas/` holds the {n_parcels} parcels as soft maps, with their names and networks.
`study.json` is written last: without it the study is not complete. `participants.tsv` lists subjects; there are
no raw images.
"""


_EVENTS_TEXT = """\
# A study of brief events for boldly

**No brain data.** Everything here was drawn by `boldly simulate --size events` (version {version}, seed {seed}).
It says nothing about brains: do not publish it as fMRI.

`{name}`: {about}; {subjects} subjects, two runs each. Signals, noise and movement are made as those of the demo
study. Events of {states} last {brief:g} s and come every 7 to 13 s; each drives the networks with the pattern of
its state through the canonical haemodynamic response. Most are followed by a row `press` of duration 0, which
drives nothing. Slices are brought to {start:g} s after the onset of a volume, as `StartTime` in the JSON files
says. `participants.tsv` names the family of each subject. Heads move, so that scrubbing finds something.

A config, with paths from the folder of the study (`snakemake --directory`):

```yaml
atlas: {{path: atlas/atlas-demo_probseg.nii.gz}}
datasets:
  {name}:
    role: downstream
    bids: {name}
    derivatives: {name}/derivatives/fmriprep
    task: {{window_s: [3, 9], drop: [press]}}
    split: {{group: family}}
preprocess: {{fd_threshold_mm: 0.5}}
parcellate: {{smoothing_fwhm_mm: null}}
adapt: {{baselines: [mean_logistic, mean_lda]}}
```
"""


def account(size: Size, seed: int, version: str) -> str:
    """Return the README of the study, in Markdown.

    Parameters
    ----------
    size : {"demo", "tiny", "events"}
        Size of the study.
    seed : int
        Its seed.
    version : str
        Version of boldly that made it.
    """
    if size == "events":
        one = EVENT_RELATED
        return _EVENTS_TEXT.format(
            version=version,
            seed=seed,
            name=one.name,
            about=one.about,
            subjects=one.subjects[size],
            states=", ".join(one.states),
            brief=BRIEF_S,
            start=one.start_time,
        )
    partner = {one: other for pair in states.PAIRS for one, other in (pair, pair[::-1])}
    datasets, labels = [], []
    for dataset in DATASETS:
        n_states = str(len(dataset.states)) if dataset.states else "unlabelled"
        datasets.append(
            f"| {dataset.name} | {dataset.about} | {dataset.subjects[size]} | {dataset.t_r:g} | {n_states} |"
        )
        of_process = {process: name for name, process in dataset.states.items()}
        for name, process in dataset.states.items():
            other = of_process.get(partner.get(process, ""), "")
            labels.append(f"| {dataset.name} | {name} | {process} | {other} |")
    return _TEXT.format(
        version=version,
        size=size,
        seed=seed,
        datasets="\n".join(datasets),
        labels="\n".join(labels),
        n_networks=networks.N_NETWORKS,
        n_parcels=networks.N_PARCELS,
        n_pairs=len(states.PAIRS),
        slowest=networks.MODE_FREQUENCIES_HZ[0],
        fastest=networks.MODE_FREQUENCIES_HZ[-1],
        lag=networks.LARGEST_LAG_S,
        topography=networks.TOPOGRAPHY_SD,
        gain=networks.GAIN_SD,
        response_lag=networks.RESPONSE_LAG_SD_S,
        white=networks.WHITE_NOISE_SD,
        slow=networks.SLOW_NOISE_SD,
        background=networks.BACKGROUND_SD,
        pattern=states.PATTERN_AMPLITUDE,
        voxel=anatomy.VOXEL_MM,
        durations=", ".join(f"{duration:g}" for duration in TRIAL_DURATIONS_S),
        delay=states.RECOMMENDED_DELAY_S,
    )
