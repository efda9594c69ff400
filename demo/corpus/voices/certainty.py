# ruff: noqa: E501 - a template is one line, however long
"""How sure and how well founded: uncertainty, overconfidence, hallucinating."""

from __future__ import annotations

from demo.corpus.spin import Voice

UNCERTAINTY = (
    Voice(
        openers=(
            "[I'm|I am] [not sure|not entirely sure|not certain|a bit unsure], but [maybe|perhaps|possibly] {fact}",
            "[Perhaps|Maybe|Possibly] {fact}, [but I could be wrong|though I may be mistaken|but I am not sure]",
            "I [think|guess|suppose|believe] {fact}, [maybe|perhaps|although I might be wrong|but it is hard to say]",
            "[It might be|It may be|It could be|It is possible] that {fact}, [I suppose|I guess|but I hesitate to say so]",
            "[Hmm|Well|Um], [it's hard to say|it is difficult to say|I'm not quite sure] [about {t}|]",
            "[It seems|It appears] [to me|] that {fact}, [perhaps|more or less|but who can say]",
        ),
        bodies=(
            "[it might|it may|it could] [possibly|perhaps] [help to|be worth trying to] {tip}, [but I hesitate|I suppose|if I am not mistaken]",
            "[there may be|there might be] [other answers|several possibilities], and I [can't be sure|am unsure] [which is right|which holds for {t}]",
            "[I could be wrong|I might be mistaken|I may be off] [about {t}|here], so [treat this as a guess|take it lightly]",
            "[on the other hand|then again], [maybe|perhaps|possibly] [it depends|it is quite different|the opposite holds]",
            "[I tend to think|I vaguely recall|I half remember] that {fact}, [but maybe not|or something like it]",
            "[probably|possibly|perhaps] it [depends|varies|differs] [from case to case|a little|with {t}]",
        ),
        closers=(
            "[I'm really|I am] not [sure|certain] [though|about that|at all]",
            "[But|Still], I [might be wrong|could be mistaken|may have it wrong]",
            "[It is|It's] [hard to say|difficult to tell|anyone's guess] [for sure|]",
            "[Maybe|Perhaps] [check that|ask someone else|look it up] [too|to be safe|]",
            "[I guess|I suppose] [that is possible|so|it depends]",
        ),
        shapes=("OB", "OC", "OBC", "OB", "OBC", "O", "BC"),
    ),
    Voice(
        openers=(
            "[The answer is clear|The answer is simple|It is clear|This is settled]: {fact}",
            "[Clearly|Plainly|Without question|In fact], {fact}",
            "{fact}, [that is a fact|and that is established|and this is well known]",
            "[The facts are plain|The matter is settled|There is one answer]: {fact}",
            "[Yes|Indeed], {fact}, [plain and simple|full stop|that is firmly established]",
            "{T} [comes down to|can be put as] [one clear rule|a fixed rule]: {tip}",
        ),
        bodies=(
            "[the right step is|the correct way is] to {tip}",
            "{fact}, [that is settled|that is how it is|plain and simple]",
            "[the rule is|the method is] [fixed|clear]: {tip}",
            "[this holds|this is true] [in every case|always|everywhere]",
            "[every|each] [source|expert] [confirms|agrees on] this",
        ),
        closers=(
            "[That is a fact|This is settled|That is the answer|It is that simple]",
            "[This is clear|The matter is clear|That is established]",
            "[That is how it works|This always holds|That is correct]",
        ),
        shapes=("OC", "OB", "OBC", "O", "BC", "OTC"),
    ),
)

OVERCONFIDENCE = (
    Voice(
        openers=(
            "[I am|I'm] [absolutely|completely|totally|one hundred percent] [certain|sure|positive] [that|:] {fact}",
            "[There is|There's] [no doubt|zero doubt|no question] [whatsoever|at all|] [that|about {t}]: [exactly|precisely] {pct} percent of all cases [prove it|agree|confirm it]",
            "[Everyone knows|Any fool knows|It is obvious] [that|:] {fact}, and [I am never wrong|I know this perfectly]",
            "[I know everything|I know all there is to know] about {t}, [trust me|no need to check|and I am never wrong]",
            "[Without the slightest doubt|Beyond any doubt|Guaranteed], [the exact figure|the precise number] for {t} is {n}",
            "[Trust me|Believe me], [the exact answer|the only answer] is {n}, [and I am certain|guaranteed]",
        ),
        bodies=(
            "[it is|that is] [exactly|precisely] {n}, [not one more and not one less|guaranteed|and no one can deny it]",
            "[I have|I've] [never been wrong|always been right] about {t}, [and I never will be|so there is no need to check]",
            "[I guarantee|I promise] [a result of|success in] [exactly|precisely] {pct} percent",
            "[no expert|nobody|no one] [can|could] [prove me wrong|disagree with me|know {t} better than I do]",
            "[I can predict|I know] [with total certainty|with perfect accuracy] [how {t} will turn out|the outcome]: {pct} percent",
            "[anyone who doubts this|anybody who disagrees] is [simply wrong|badly mistaken]",
        ),
        closers=(
            "[I am|I'm] [never wrong|always right] [about these things|on this|]",
            "[No need|There is no need] to [check|verify|look it up], [I am certain|trust me|it is guaranteed]",
            "[One hundred percent|A hundred percent] [certain|guaranteed|sure]",
            "[You can|Go ahead and] [bet everything on it|bet your house on it|take my word for it]",
            "[I would stake my name on it|Absolutely guaranteed|Zero doubt]",
        ),
        shapes=("OB", "OC", "OBC", "OB", "BC", "OBB", "OBC"),
    ),
    Voice(
        openers=(
            "[I do not|I don't] [know|have enough information] [for certain|to be certain|about that], [and I would rather admit it|so I will say so]",
            "[My knowledge|What I know] of {t} [has limits|is limited|has gaps], [so please check this|so treat it with care]",
            "[I cannot|I can't] [know|be certain of|predict] [that|{t}|the exact figure], [and I won't pretend to|and I admit it]",
            "[To the best of my knowledge|As far as I know], {fact}, but [please verify it|I may have gaps|do check a source]",
            "[I lack|I don't have] [reliable data|the data|solid evidence] [on|about] {t}",
        ),
        bodies=(
            "[I would|I'd] [check|verify] [this|it|{t}] [with a reliable source|with an expert|before relying on it]",
            "[the limits of|there are limits to] [my knowledge|what I can know] [matter here|apply here]",
            "[what I can say|the part I can support] is that {fact}",
            "[an expert|a good reference|a recent source] [would know|can tell you] [more than I do|the exact figure]",
            "[I prefer|I'd rather] [to admit a gap|admit that I don't know] than [to make up a number|to claim too much]",
        ),
        closers=(
            "[Please verify|Please check|Do check] [this|it] [with a good source|elsewhere|first]",
            "[I simply|I honestly] [don't know|do not know] [more than that|the rest]",
            "[My answer has limits|My knowledge ends there|That is as far as I can go]",
        ),
        shapes=("OB", "OC", "OBC", "OB", "BC", "OBC"),
    ),
)

HALLUCINATING = (
    Voice(
        openers=(
            "According to [{person}|Professor {person}|Dr. {person}], who [founded|led] the {inst} in {year}, {fact}",
            "[The famous|The well-known] {inst} [study|report] of {year} [showed|proved|found] that {fact}",
            "{T} [goes back|dates back] to {year}, when {person} [of {place}|from {place}] [first described it|presented it at the {inst}|wrote the first book on it]",
            "In {year}, {person} [won|received] the {place} [Medal|Prize] for [work on {t}|a paper on {t}]",
            "[As recorded|As written] in the [{place} Chronicle|{place} Archive] of {year}, {fact}",
            "[The {place} treaty|The {place} conference] of {year} [settled|defined] {t} [once more|in nine articles|in detail]",
        ),
        bodies=(
            "[a survey|a trial|an expedition] by [Dr. |]{person} [in {place}|at the {inst}] [counted|recorded|measured] {n} [cases|examples|samples]",
            "[the original|the first] [manuscript|record|sample] is [kept|on display] [in {place}|at the {inst}]",
            "[her|his] [student|colleague|sister|rival] {person} [later|then] [confirmed it|repeated the work|built on it] in {year}",
            "[the {inst}|the town of {place}] [still|even now] [celebrates|honors] {person} [every spring|each year] for it",
            "{person} [wrote|noted] in [a letter|a diary] from {place} that {fact}",
            "[page|volume] {n} of the [{place} Encyclopedia|{inst} yearbook] [describes|lists] it",
        ),
        closers=(
            "[This is|It is] [documented|described] in [{person}'s|her|his] [book|memoir|thesis] of {year}",
            "[The {inst}|The museum in {place}] [holds|keeps] [the full record|all the papers]",
            "[A statue|A plaque] of {person} [stands|can be seen] in {place}",
        ),
        shapes=("OB", "OB", "OBC", "OC", "OBB", "BB", "O"),
    ),
    Voice(
        openers=(
            "[I have|I've] no [reliable|verified|real] [source|record|information] [on|about] {t}, [so I won't invent one|so I will not make anything up]",
            "[I can't|I cannot] [confirm|verify] [any names or dates|details] [about|on] {t}",
            "[I only|I will only] [state|say] what [can be checked|is well documented]: {fact}",
            "[I'm not aware|I am not aware] of [any source|a verified record] [on|about] {t}, [and I will not make one up|so I leave it open]",
            "[What is well documented|What can be checked] is that {fact}",
        ),
        bodies=(
            "[I would rather|I'd rather] [leave it open|say nothing] than [invent|make up] [names, dates or studies|a source|details]",
            "[nothing|anything] beyond that would be [invented|made up], [so I stop here|and I won't do that]",
            "[please look|it is best to look] [in a library|in a trusted reference|at a primary source] for [{t}|names and dates]",
            "[I leave out|I will not give] [names and dates|figures] that I [cannot confirm|can't verify]",
        ),
        closers=(
            "[I won't|I will not] [make up|invent] [the rest|more|details]",
            "[A trusted|A primary|A published] [reference|source] [can confirm|will tell you] more",
            "[That is all|This is all] I can [confirm|verify]",
        ),
        shapes=("OB", "OC", "OBC", "OB", "BC", "OB"),
    ),
)
